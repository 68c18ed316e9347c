//! Room for the settings of clusters whose nodes read them from Secrets: each piece has its own, and a Secret has an end.
//!
//! What runs has its place: a link that is new, or grew, takes what is left, and where that is not enough it stays as it runs.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use super::half::{self, Half};
use super::world::{Key, World};
use crate::api::Finding;
use crate::settings::{Link, Pieces, Settings};

/// What Kubernetes keeps in one Secret.
pub(super) const PIECE_BYTES_MAX: usize = 1_024 * 1_024;
/// What a piece has around its links.
const FRAME_BYTES: usize = 64;

const REASON: &str = "SettingsTooLarge";

/// The links of clusters, by size; looked at where something is new.
pub(super) struct Rooms<'w> {
    world: &'w World,
    /// The ids of all halves that there are.
    there: Option<HashSet<String>>,
    taken: BTreeMap<Key, Room>,
}

#[derive(Default)]
struct Room {
    /// By id.
    links: BTreeMap<String, usize>,
    sum: usize,
}

impl<'w> Rooms<'w> {
    pub(super) fn of(world: &'w World) -> Rooms<'w> {
        Rooms { world, there: None, taken: BTreeMap::new() }
    }

    /// The room in a cluster whose nodes read Secrets, with what runs of the links that there are.
    fn room(&mut self, cluster: &Key) -> Option<&mut Room> {
        let world = self.world;
        world.placements.get(cluster)?.selector.as_ref()?;
        let all = || world.links.iter().flat_map(|link| ids_of(&Key::of(link))).collect();
        let there = self.there.get_or_insert_with(all);
        Some(self.taken.entry(cluster.clone()).or_insert_with(|| {
            let running = world.running.get(cluster).into_iter().flat_map(|running| &running.settings.links);
            let mut room = Room::default();
            for link in running.filter(|link| there.contains(&link.id)) {
                room.put(link.id.clone(), bytes(link));
            }
            room
        }))
    }

    /// Takes room for all halves of a link.
    ///
    /// # Errors
    /// When one finds none: why, and the halves as they run.
    pub(super) fn admit(&mut self, halves: Vec<Half>) -> Result<Vec<Half>, (Finding, Vec<Half>)> {
        // What runs as it is has its place.
        let runs = |half: &Half| half::running(self.world, &half.cluster, &half.settings.id);
        if halves.iter().all(|half| runs(half) == Some(&half.settings)) {
            return Ok(halves);
        }
        for half in &halves {
            let Some(room) = self.room(&half.cluster) else { continue };
            let needed = room.with(&half.settings.id, bytes(&half.settings));
            if needed > PIECE_BYTES_MAX {
                let finding =
                    too_large("links.json", &half.cluster, needed, "delete links, or shorten their topics");
                return Err((finding, self.as_it_runs(&halves)));
            }
        }
        for half in &halves {
            if let Some(room) = self.room(&half.cluster) {
                room.put(half.settings.id.clone(), bytes(&half.settings));
            }
        }
        Ok(halves)
    }

    fn as_it_runs(&self, halves: &[Half]) -> Vec<Half> {
        let runs = |half: &Half| {
            let settings = half::running(self.world, &half.cluster, &half.settings.id)?.clone();
            Some(Half { cluster: half.cluster.clone(), settings })
        };
        halves.iter().filter_map(runs).collect()
    }
}

impl Room {
    fn with(&self, id: &str, bytes: usize) -> usize {
        FRAME_BYTES + self.sum - self.links.get(id).copied().unwrap_or_default() + bytes
    }

    fn put(&mut self, id: String, bytes: usize) {
        let before = self.links.insert(id, bytes).unwrap_or_default();
        self.sum = self.sum - before + bytes;
    }
}

/// Holds what is not links against its room.
pub(super) fn check_cluster(key: &Key, settings: &Settings) -> Result<(), Finding> {
    let Pieces { base, users, .. } = Pieces::of(settings);
    if users.len() > PIECE_BYTES_MAX {
        return Err(too_large(
            "users.json",
            key,
            users.len(),
            "have fewer users, or shorter hashes of their passwords",
        ));
    }
    if base.len() > PIECE_BYTES_MAX {
        return Err(too_large(
            "base.json",
            key,
            base.len(),
            "shorten the certificate chains of its listeners",
        ));
    }
    Ok(())
}

/// The ids of a link's halves.
fn ids_of(link: &Key) -> [String; 2] {
    [link.to_string(), half::remote_id(link)]
}

fn bytes(link: &Link) -> usize {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, link).map_or(0, |()| count.0 + 1)
}

/// Counts what is written.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_large(piece: &str, cluster: &Key, bytes: usize, remedy: &str) -> Finding {
    Finding {
        path: String::new(),
        reason: REASON,
        message: format!(
            "The settings of {cluster} would have {bytes} bytes in {piece}, and a Secret holds {PIECE_BYTES_MAX}; {remedy}. What \
             runs runs on"
        ),
    }
}
