//! Does one thing to many values at the same time, on a few threads with deep stacks: compilers recurse. Knows nothing
//! of what is done.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The most threads at a time; they compete with the workers for the cores.
const THREADS: usize = 4;
/// Bytes of a thread's stack.
const STACK: usize = 16 << 20;
/// How far these threads, and those of the compiler, which they start, stand behind the workers when there are more
/// threads than cores: far enough that a worker does not miss the time that its filters have.
const NICE: i32 = 5;

/// How many threads there are at the most.
pub(crate) fn most() -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(THREADS)
}

/// A thread with a deep stack.
pub(crate) fn deep() -> thread::Builder {
    thread::Builder::new()
        .name("compile".to_owned())
        .stack_size(STACK)
}

/// Puts this thread behind the workers.
pub(crate) fn stand_back() {
    // On Linux this is the thread's own. Without it, things are only less smooth.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// The results, in the order of the values. Work that panics, or that no thread can be had for, is done on this
/// thread; so a panic is passed on.
pub(crate) fn each<T: Sync, R: Send>(values: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let count = values.len().min(most());
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = values.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(value), Some(place)) = (values.get(index), done.get(index)) else {
                return;
            };
            let result = act(value);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    thread::scope(|scope| {
        let spawn = || {
            deep().spawn_scoped(scope, || {
                stand_back();
                work();
            })
        };
        let threads: Vec<_> = (0..count).map_while(|_| spawn().ok()).collect();
        for thread in threads {
            // What a thread left undone is done below.
            let _ = thread.join();
        }
    });
    let places = done.into_iter().zip(values);
    places
        .map(|(place, value)| {
            let result = place.into_inner().unwrap_or_else(PoisonError::into_inner);
            result.unwrap_or_else(|| act(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_values() {
        let values: Vec<u32> = (0..100).collect();
        let doubled = each(&values, |value| value * 2);
        assert_eq!(doubled, (0..100).map(|value| value * 2).collect::<Vec<_>>());
        assert!(each(&[] as &[u32], |value| *value).is_empty());
    }

    #[test]
    fn what_panics_once_is_done_again() {
        let tries = AtomicUsize::new(0);
        let results = each(&[1, 2], |value| {
            assert!(
                *value == 2 || tries.fetch_add(1, Ordering::Relaxed) > 0,
                "the first try"
            );
            *value
        });
        assert_eq!(results, [1, 2]);
    }
}
