//! Disks as they are: a file system of a few MiB that is full, and one whose machine loses its power.
//!
//! The file system is in a file and is mounted for one broker alone, in a mount namespace that goes with it. That takes root and
//! a loop device; without them these cases abstain, and say so, but in CI.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mqlink::mqtt::{PacketId, QoS};
use mqlink::settings::{Durability, Settings};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::{MQLINK, Node, settings, signal, until};
use crate::kept::{Heard, Publisher, Subscriber, Wire};

/// A file system in a file.
struct Image {
    folder: TempDir,
    file: PathBuf,
}

const MOUNT: &str = "mount -o loop \"$0\" \"$1\" && shift && exec \"$@\"";
/// The same on thin ground: what nobody has written yet has no room of its own in the memory below.
const MOUNT_THIN: &str = "mount -t tmpfs -o size=48m tmpfs \"$1.ground\" && cp --sparse=never \"$0\" \"$1.ground/disk\" && \
                          mount -o loop \"$1.ground/disk\" \"$1\" && fstrim \"$1\" && shift && exec \"$@\"";

impl Image {
    /// None where it cannot be mounted.
    fn new(mib: u64) -> Option<Image> {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("disk");
        File::create(&file).and_then(|disk| disk.set_len(mib << 20)).expect("writable");
        for name in ["mounted", "mounted.ground"] {
            fs::create_dir(folder.path().join(name)).expect("writable");
        }
        let image = Image { folder, file };
        let run = |mut command: Command| command.output().map_err(|error| error.to_string());
        let mut format = Command::new("mkfs.ext4");
        format.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image.file);
        let mut trial = image.command(MOUNT, "true");
        trial.arg("now");
        for command in [format, trial] {
            let why = match run(command) {
                Ok(output) if output.status.success() => continue,
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error,
            };
            assert!(env::var_os("CI").is_none(), "CI must mount a file system in a file, as root: {why}");
            println!("abstains: a file system in a file cannot be mounted here, which takes root: {why}");
            return None;
        }
        Some(image)
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// A command with the file system before it; arguments follow.
    fn command(&self, mount: &str, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", mount]);
        command.arg(&self.file).arg(self.mounted()).arg(program);
        command
    }

    fn start(&self, settings: &Settings) -> Node {
        self.start_on(MOUNT, settings)
    }

    fn start_on(&self, mount: &str, settings: &Settings) -> Node {
        Node::start_through(settings.clone(), self.command(mount, MQLINK), &self.mounted().join("store"))
    }

    /// A path on the file system as the node's namespace has it.
    fn inside(&self, node: &Node, name: &str) -> PathBuf {
        self.in_node(node, "mounted").join(name)
    }

    /// A path on thin ground, below the file system.
    fn ground(&self, node: &Node, name: &str) -> PathBuf {
        self.in_node(node, "mounted.ground").join(name)
    }

    fn in_node(&self, node: &Node, name: &str) -> PathBuf {
        let folder = self.folder.path().strip_prefix("/").expect("it is absolute");
        PathBuf::from(format!("/proc/{}/root", node.pid())).join(folder).join(name)
    }

    fn lose_power(&self, node: Node) {
        self.lose_power_over(&self.file, node);
    }

    /// Takes the power from the machine: the node ends, and what it has written and not synced to the file is gone.
    fn lose_power_over(&self, file: &Path, node: Node) {
        signal(node.pid(), Signal::SIGSTOP);
        until("a node that stands still", || is_still(node.pid()).then_some(()));
        let left = self.folder.path().join("left");
        // The kernel holds back what was not synced from the file.
        fs::copy(file, &left).expect("writable");
        node.kill();
        fs::rename(&left, &self.file).expect("writable");
    }
}

fn is_still(pid: u32) -> bool {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut tasks = tasks.read_dir().expect("it lives").flatten();
    tasks.all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

const ID: Option<PacketId> = Some(PacketId::MIN);

/// Fills a file system to its last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("there is room for a name");
    let chunk = [0x5a; 4_096];
    for size in [chunk.len(), 512, 1] {
        while file.write_all(&chunk[..size]).is_ok() && file.sync_data().is_ok() {}
    }
}

/// Publishes at QoS 1. Why it is refused, if it is.
fn offer(sends: &mut Wire, acknowledged: &mut BTreeSet<String>, payload: String) -> Option<u8> {
    sends.publish_to("kept/1", ID, QoS::AtLeastOnce, &payload);
    match sends.next() {
        Some(Heard::Ack(_)) => {
            acknowledged.insert(payload);
            None
        }
        Some(Heard::Refused(reason)) => Some(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_refuses_what_must_be_stored_and_nothing_else_until_there_is_room() {
    let Some(image) = Image::new(8) else { return };
    let settings = settings();
    let port = settings.listeners[0].port;
    let node = image.start(&settings);
    Wire::connect(port, "absent").subscribe("kept/#");
    let mut hears = Wire::connect_clean(port, "live");
    hears.subscribe("live");
    let mut sends = Wire::connect_clean(port, "publisher");
    let mut acknowledged = BTreeSet::new();
    // To whoever looks for the end of a write that failed, this looks like one.
    let big = "\u{3}any sum FJL\u{3}".repeat(20_000 / 13);
    let publish = |sends: &mut Wire, acknowledged: &mut BTreeSet<String>, number: usize| {
        offer(sends, acknowledged, format!("1-{number}-{big}"))
    };
    assert_eq!(publish(&mut sends, &mut acknowledged, 0), None);

    fill(&image.inside(&node, "filler"));
    let refused = (1..1_000).find_map(|number| publish(&mut sends, &mut acknowledged, number));
    assert_eq!(refused, Some(0x97), "QoS 1 is refused by Quota exceeded");
    let report = node.status().until("trouble", |report| report.store_trouble.is_some());
    assert!(report.store_trouble.is_some_and(|why| why.contains("no space is left")));
    for number in 0..100 {
        sends.publish_to("live", None, QoS::AtMostOnce, &number.to_string());
        let heard = hears.next();
        assert!(
            matches!(&heard, Some(Heard::Message { payload, .. }) if *payload == number.to_string()),
            "{heard:?}"
        );
    }

    fs::remove_file(image.inside(&node, "filler")).expect("it is there");
    node.status().until("no trouble", |report| report.store_trouble.is_none());
    until("a message that is taken", || {
        publish(&mut sends, &mut acknowledged, 1_000).is_none().then_some(())
    });
    node.kill();

    let _node = image.start(&settings);
    let mut absent = Subscriber::default();
    absent.run(&mut Wire::connect(port, "absent"), Some(&acknowledged));
    absent.check("absent", &acknowledged);
}

/// Publishes, takes the power and counts, again and again.
fn lose_power_again_and_again(durability: Durability, wait: Duration) {
    let Some(image) = Image::new(32) else { return };
    let mut settings = settings();
    settings.storage.durability = durability;
    let port = settings.listeners[0].port;
    let mut publisher = Publisher::default();
    let mut node = image.start(&settings);
    Wire::connect(port, "absent").subscribe("kept/#");
    for round in 0..4 {
        publisher.run(&mut Wire::connect(port, "publisher"), 53 * (round + 1));
        let then = Instant::now();
        until("what is to be synced meanwhile", || (then.elapsed() >= wait).then_some(()));
        image.lose_power(node);
        node = image.start(&settings);
        assert!(Wire::connect(port, "absent").is_present, "round {round}: the session is gone");
    }
    publisher.run(&mut Wire::connect(port, "publisher"), 80);
    let mut absent = Subscriber::default();
    absent.run(&mut Wire::connect(port, "absent"), Some(&publisher.acknowledged));
    absent.check("absent", &publisher.acknowledged);
    assert!(publisher.acknowledged.len() > 500);
}

/// Linux shows what an fsync that failed has left as if it were safe, and the disk never gets it.
#[test]
fn what_is_acknowledged_after_an_fsync_that_failed_survives_the_loss_of_power() {
    let Some(image) = Image::new(32) else { return };
    // What the file system already has gets room below; what it takes later has none beforehand.
    let bytes = fs::read(&image.file).expect("readable");
    fs::write(&image.file, bytes).expect("writable");
    let mut settings = settings();
    settings.storage.durability = Durability::Always;
    let port = settings.listeners[0].port;
    let node = image.start_on(MOUNT_THIN, &settings);
    Wire::connect(port, "absent").subscribe("kept/#");
    let mut sends = Wire::connect_clean(port, "publisher");
    let mut acknowledged = BTreeSet::new();
    fill(&image.ground(&node, "filler"));
    let big = "x".repeat(200_000);
    let refused =
        (0..100).find_map(|number| offer(&mut sends, &mut acknowledged, format!("1-{number}-{big}")));
    assert_eq!(refused, Some(0x97));
    let report = node.status().until("trouble", |report| report.store_trouble.is_some());
    println!("{:?}", report.store_trouble);
    fs::remove_file(image.ground(&node, "filler")).expect("it is there");
    node.status().until("no trouble", |report| report.store_trouble.is_none());
    for number in 100..120 {
        let payload = format!("1-{number}-");
        until("a message that is taken", || {
            offer(&mut sends, &mut acknowledged, payload.clone()).is_none().then_some(())
        });
    }
    image.lose_power_over(&image.ground(&node, "disk"), node);

    let _node = image.start(&settings);
    let mut absent = Subscriber::default();
    absent.run(&mut Wire::connect(port, "absent"), Some(&acknowledged));
    absent.check("absent", &acknowledged);
}

#[test]
fn what_was_acknowledged_under_always_survives_the_loss_of_power() {
    lose_power_again_and_again(Durability::Always, Duration::ZERO);
}

#[test]
fn what_was_acknowledged_under_interval_survives_the_loss_of_power_a_second_later() {
    lose_power_again_and_again(Durability::Interval, Duration::from_secs(1));
}
