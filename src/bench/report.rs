//! Runs in, table and JSON out.

use std::fmt::Write as _;

use super::Options;
use super::run::{BenchError, Run};
use super::scenario::SCENARIOS;

/// Writes what `options` ask for: JSON of every run, and the table to a file or the terminal.
pub(super) fn write(options: &Options, runs: &[Run]) -> Result<(), BenchError> {
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(runs).expect("runs are plain data");
        write_file(path, &json)?;
    }
    let names: Vec<&str> = options.targets.iter().map(|target| target.name.as_str()).collect();
    let table = markdown(&names, runs);
    match &options.markdown {
        Some(path) => write_file(path, &table),
        None => {
            print!("{table}");
            Ok(())
        }
    }
}

fn write_file(path: &std::path::Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|source| BenchError::io("write", &path.display().to_string(), source))
}

/// One row per scenario: CPU per target, how many times more than the first target the others pay, throughput, latency.
fn markdown(names: &[&str], runs: &[Run]) -> String {
    let mut table = String::from("| µs of CPU |");
    let mut rule = String::from("|---|");
    for name in names {
        let _ = write!(table, " {name} |");
        rule.push_str("---|");
    }
    for name in names.iter().skip(1) {
        let _ = write!(table, " {name} / {} |", names[0]);
        rule.push_str("---|");
    }
    for name in names {
        let _ = write!(table, " {name}: per second | p50 / p99, ms |");
        rule.push_str("---|---|");
    }
    let _ = write!(table, "\n{rule}\n");
    for scenario in SCENARIOS.iter().filter(|scenario| runs.iter().any(|run| run.scenario == scenario.name)) {
        let of = |name: &str| -> Vec<&Run> {
            runs.iter().filter(|run| run.scenario == scenario.name && run.target == name).collect()
        };
        let cpu: Vec<Option<f64>> = names.iter().map(|name| cpu(&of(name))).collect();
        let _ = write!(table, "| {}, per {} |", scenario.name, scenario.unit);
        for value in &cpu {
            let _ = write!(table, " {} |", value.map_or("–".to_owned(), |us| format!("{us:.3}")));
        }
        for value in cpu.iter().skip(1) {
            let ratio = value.zip(cpu[0]).map(|(other, first)| format!("{:.1}", other / first));
            let _ = write!(table, " {} |", ratio.unwrap_or_else(|| "–".to_owned()));
        }
        for name in names {
            let _ = write!(table, " {} |", speed(&of(name)));
        }
        table.push('\n');
    }
    table
}

fn cpu(runs: &[&Run]) -> Option<f64> {
    median(runs.iter().filter_map(|run| run.cpu_us_per_unit).collect())
}

/// Throughput, latency, and what was lost if anything was.
fn speed(runs: &[&Run]) -> String {
    let of = |figure: fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)).collect());
    let Some(rate) = of(|run| run.units_per_second) else { return "– | –".to_owned() };
    let ms = |us: Option<f64>| format!("{:.2}", us.unwrap_or_default() / 1e3);
    let latency = format!("{} / {}", ms(of(|run| run.latency_p50_us)), ms(of(|run| run.latency_p99_us)));
    let lost: u64 = runs.iter().map(|run| run.lost).sum();
    let lost = if lost > 0 { format!(" ({lost} lost)") } else { String::new() };
    let measured = runs.iter().any(|run| run.cpu_us_per_unit.is_some());
    if measured { format!("{rate:.0}{lost} | {latency}") } else { format!("– | {latency}") }
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

    fn run(target: &str, cpu: f64) -> Run {
        Run {
            scenario: SCENARIOS[0].name,
            target: target.to_owned(),
            round: 0,
            units: 1,
            seconds: 1.0,
            units_per_second: 1000.0,
            cpu_us_per_unit: Some(cpu),
            generator_cpu_us_per_unit: None,
            latency_p50_us: 1500.0,
            latency_p99_us: 2500.0,
            lost: 0,
        }
    }

    #[test]
    fn a_row_has_medians_and_ratios() {
        let runs = [run("a", 1.0), run("a", 9.0), run("a", 2.0), run("b", 8.0)];
        let table = markdown(&["a", "b"], &runs);
        let row = table.lines().nth(2).expect("a row");
        assert_eq!(
            row,
            "| 1:1 QoS 0, per message | 2.000 | 8.000 | 4.0 | 1000 | 1.50 / 2.50 | 1000 | 1.50 / 2.50 |"
        );
        let columns = |line: &str| line.matches('|').count();
        assert_eq!(columns(table.lines().next().expect("a head")), columns(row));
    }
}
