//! Runs in, table and JSON out.

use std::fmt::Write as _;

use super::Options;
use super::run::{BenchError, Run};
use super::scenario::Scenario;
use super::soak::Phase;

/// Writes what `options` ask for: JSON of every run, and the table to a file or the terminal.
pub(super) fn write(options: &Options, runs: &[Run]) -> Result<(), BenchError> {
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(runs).expect("runs are plain data");
        write_file(path, &json)?;
    }
    let names: Vec<&str> = options.targets.iter().map(|target| target.name.as_str()).collect();
    let table = markdown(&options.scenarios(), &names, runs);
    match &options.markdown {
        Some(path) => write_file(path, &table),
        None => {
            print!("{table}");
            Ok(())
        }
    }
}

/// Writes what a bystander felt, as JSON if that is asked for; the table is on the terminal already.
pub(super) fn write_soak(options: &Options, phases: &[Phase]) -> Result<(), BenchError> {
    let Some(path) = &options.json else { return Ok(()) };
    let json = serde_json::to_string_pretty(phases).expect("phases are plain data");
    write_file(path, &json)
}

fn write_file(path: &std::path::Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|source| BenchError::io("write", &path.display().to_string(), source))
}

/// Three tables: what a message costs, how fast it went meanwhile, and the memory at the end.
fn markdown(scenarios: &[Scenario], names: &[&str], runs: &[Run]) -> String {
    let tables =
        [costs(scenarios, names, runs), speeds(scenarios, names, runs), memory(scenarios, names, runs)];
    tables.join("\n")
}

/// A target with this name is what the first is compared with, and not the other way round.
const FLOOR: &str = "floor";

/// CPU per target, and how many times more than the first target the others pay, and that more than the floor.
fn costs(scenarios: &[Scenario], names: &[&str], runs: &[Run]) -> String {
    let mut head = vec!["µs of CPU".to_owned()];
    head.extend(names.iter().map(|name| (*name).to_owned()));
    head.extend(names.iter().skip(1).map(|name| match *name {
        FLOOR => format!("{} / {FLOOR}", names[0]),
        name => format!("{name} / {}", names[0]),
    }));
    let mut rows = vec![head];
    for scenario in scenarios {
        let cpu: Vec<Option<f64>> = names.iter().map(|name| cpu(&of(runs, &scenario.name, name))).collect();
        if cpu.iter().all(Option::is_none) {
            continue;
        }
        let ratios = cpu.iter().zip(names).skip(1).map(|(other, name)| {
            let (other, first) = other.zip(cpu[0])?;
            Some(if *name == FLOOR { first / other } else { other / first })
        });
        let mut row = vec![format!("{}, per {}", scenario.name, scenario.unit)];
        row.extend(cpu.iter().map(|us| us.map_or(NONE.to_owned(), |us| format!("{us:.3}"))));
        row.extend(ratios.map(|ratio| ratio.map_or(NONE.to_owned(), |ratio| format!("{ratio:.1}"))));
        rows.push(row);
    }
    table(&rows)
}

/// Throughput and latency per target, and what was lost.
fn speeds(scenarios: &[Scenario], names: &[&str], runs: &[Run]) -> String {
    let mut head = vec!["per second; p50 / p99 / p99.9 in ms".to_owned()];
    head.extend(names.iter().map(|name| (*name).to_owned()));
    let mut rows = vec![head];
    for scenario in scenarios.iter().filter(|scenario| runs.iter().any(|run| run.scenario == scenario.name)) {
        let mut row = vec![scenario.name.to_string()];
        row.extend(names.iter().map(|name| speed(&of(runs, &scenario.name, name))));
        rows.push(row);
    }
    table(&rows)
}

/// Resident memory per target, where its processes are known.
fn memory(scenarios: &[Scenario], names: &[&str], runs: &[Run]) -> String {
    let mut head = vec!["RSS in MiB".to_owned()];
    head.extend(names.iter().map(|name| (*name).to_owned()));
    let mut rows = vec![head];
    for scenario in scenarios.iter().filter(|scenario| runs.iter().any(|run| run.scenario == scenario.name)) {
        let mib = |name: &&str| {
            let kib = of(runs, &scenario.name, name).into_iter().filter_map(|run| run.rss_kib);
            median(kib.map(|kib| kib as f64).collect())
                .map_or(NONE.to_owned(), |kib| format!("{:.1}", kib / 1024.0))
        };
        let mut row = vec![scenario.name.to_string()];
        row.extend(names.iter().map(mib));
        rows.push(row);
    }
    table(&rows)
}

/// What stands where nothing was measured.
const NONE: &str = "–";

fn of<'a>(runs: &'a [Run], scenario: &str, target: &str) -> Vec<&'a Run> {
    runs.iter().filter(|run| run.scenario == scenario && run.target == target).collect()
}

fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

fn cpu(runs: &[&Run]) -> Option<f64> {
    median(runs.iter().filter_map(|run| run.cpu_us_per_unit).collect())
}

/// Throughput (of a load), latency, and what stalled or was lost, if anything did.
fn speed(runs: &[&Run]) -> String {
    let of = |figure: fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)).collect());
    let Some(rate) = of(|run| run.units_per_second) else { return NONE.to_owned() };
    let ms = |us: Option<f64>| format!("{:.2}", us.unwrap_or_default() / 1e3);
    let quantiles =
        [of(|run| run.latency_p50_us), of(|run| run.latency_p99_us), of(|run| run.latency_p999_us)];
    let latency = quantiles.map(ms).join(" / ");
    let of = |what: fn(&&Run) -> u64| runs.iter().map(what).sum::<u64>();
    let told = |count, what| if count > 0 { format!(" ({count} {what})") } else { String::new() };
    let lost = told(of(|run| run.stalls), "stalls") + &told(of(|run| run.lost), "lost");
    let is_load = runs.iter().any(|run| run.generator_cpu_us_per_unit.is_some());
    if is_load { format!("{rate:.0}; {latency}{lost}") } else { format!("{latency}{lost}") }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scenario::SCENARIOS;

    fn run(target: &str, cpu: f64) -> Run {
        Run {
            scenario: SCENARIOS[0].name.to_string(),
            target: target.to_owned(),
            round: 0,
            units: 1,
            seconds: 1.0,
            units_per_second: 1000.0,
            cpu_us_per_unit: Some(cpu),
            due_per_second: None,
            generator_cpu_us_per_unit: Some(0.1),
            latency_p50_us: 1500.0,
            latency_p99_us: 2500.0,
            latency_p999_us: 3500.0,
            latency_max_us: 4500.0,
            rss_kib: Some(2048),
            stalls: 0,
            lost: 0,
        }
    }

    #[test]
    fn the_page_names_every_figure() {
        let page = include_str!("../../docs/bench.md");
        let serde_json::Value::Object(run) = serde_json::json!(run("a", 1.0)) else {
            panic!("a run has names")
        };
        for figure in run.keys() {
            assert!(page.contains(&format!("`{figure}`")), "{figure}");
        }
    }

    #[test]
    fn a_row_has_medians_and_ratios() {
        let runs = [run("a", 1.0), run("a", 9.0), run("a", 2.0), run("b", 8.0), run(FLOOR, 0.5)];
        let costs = costs(SCENARIOS, &["a", "b", FLOOR], &runs);
        assert_eq!(
            costs.lines().nth(2),
            Some("| 1:1 QoS 0, per message | 2.000 | 8.000 | 0.500 | 4.0 | 4.0 |")
        );
        let speeds = speeds(SCENARIOS, &["a", "b"], &runs);
        assert_eq!(
            speeds.lines().nth(2),
            Some("| 1:1 QoS 0 | 1000; 1.50 / 2.50 / 3.50 | 1000; 1.50 / 2.50 / 3.50 |")
        );
        let memory = memory(SCENARIOS, &["a", "c"], &runs);
        assert_eq!(memory.lines().nth(2), Some("| 1:1 QoS 0 | 2.0 | – |"));
    }
}
