//! Descriptors: as many as the connections need, if the system lets us, and no more connections than there are descriptors
//! for, so that upstreams, files and the admin pages always have theirs. Opens nothing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process needs besides connections: runtimes, files, the admin pages.
const RESERVE: u64 = 64;
/// The same for each worker.
const RESERVE_OF_WORKER: u64 = 8;

/// Raises the process's limit of open files as far as so many connections need it and as it may be raised, and says how
/// many connections there can be.
pub(crate) fn make_room(connections: usize, workers: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = needed(connections, workers);
    let mut open = limit.current.unwrap_or(u64::MAX);
    if open < wanted {
        let raised = wanted.min(limit.maximum.unwrap_or(u64::MAX));
        let new = Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, new).is_ok() {
            open = raised;
        }
    }
    let room = room(open, workers).min(connections);
    if room < connections {
        tracing::warn!(
            "at most {room} connections are served at a time, not {connections} (`max-connections`): the process may open {open} files; raise that (`ulimit -n`) to {wanted}"
        );
    }
    room
}

/// Files that so many connections need: each has one to the client and one to an upstream.
fn needed(connections: usize, workers: usize) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections
        .saturating_mul(2)
        .saturating_add(reserve(workers))
}

/// Connections that so many files are enough for.
fn room(files: u64, workers: usize) -> usize {
    let free = files.saturating_sub(reserve(workers).min(files / 2));
    usize::try_from(free / 2).unwrap_or(usize::MAX).max(1)
}

fn reserve(workers: usize) -> u64 {
    let workers = u64::try_from(workers).unwrap_or(u64::MAX);
    RESERVE.saturating_add(workers.saturating_mul(RESERVE_OF_WORKER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_as_were_asked_for() {
        for (connections, workers) in [(1, 1), (100, 2), (16_384, 64)] {
            assert!(room(needed(connections, workers), workers) >= connections);
        }
    }

    #[test]
    fn few_files_are_shared_out() {
        assert_eq!(room(64, 2), 16);
        assert_eq!(room(1024, 2), 472);
        assert_eq!(room(0, 2), 1);
        assert_eq!(room(u64::MAX, 2), usize::MAX / 2 - 40);
    }
}
