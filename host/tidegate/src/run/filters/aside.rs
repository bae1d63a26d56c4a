//! Files that are read and compiled on threads of their own. Whoever wants them waits for a moment only; when one that was
//! left is done, somebody is called. Knows no filter.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use tidegate_wasm::Engine;

use super::file::Known;
use crate::run::start::lock;
use crate::run::together;

/// Called with a file that was left when it is done.
pub(crate) type Call = Arc<dyn Fn(&Path) + Send + Sync>;

/// Files that are being compiled.
#[derive(Default)]
pub(super) struct Aside {
    jobs: HashMap<PathBuf, Arc<Job>>,
    queue: Arc<Mutex<Queue>>,
    call: Option<Call>,
}

/// What waits for a thread, and how many threads there are.
#[derive(Default)]
struct Queue {
    tasks: VecDeque<Box<dyn FnOnce() + Send>>,
    threads: usize,
}

#[derive(Default)]
struct Job {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
enum State {
    /// Somebody waits for it.
    #[default]
    Awaited,
    /// Nobody does: they are to be called.
    Left,
    /// What is known of the file; none: it is not there.
    Done(Option<Known>),
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside")
            .field("files", &self.jobs.keys())
            .finish_non_exhaustive()
    }
}

impl Aside {
    /// Whom to call.
    pub(super) fn when_done(&mut self, call: Call) {
        self.call = Some(call);
    }

    /// Whether a file is being compiled, or was and nobody has asked since.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.jobs.contains_key(path)
    }

    /// Forgets files that are of no interest any more. What runs comes to its end, and nobody learns of it.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Path) -> bool) {
        self.jobs.retain(|path, _| wanted(path));
    }

    /// Has a file read, unless it is being read already.
    pub(super) fn begin(
        &mut self,
        path: &Path,
        before: Option<Known>,
        sure: bool,
        engine: &Engine,
    ) {
        if let Some(job) = self.jobs.get(path)
            && !job.is_stale(path)
        {
            return;
        }
        let job = Arc::new(Job::default());
        self.jobs.insert(path.to_owned(), Arc::clone(&job));
        let (path, engine, call) = (path.to_owned(), engine.clone(), self.call.clone());
        let task = move || {
            let read = AssertUnwindSafe(|| Known::read(&path, before.as_ref(), sure, &engine));
            let known = catch_unwind(read).unwrap_or_else(|_| Some(Known::broken(&path)));
            let before = std::mem::replace(&mut *lock(&job.state), State::Done(known));
            job.done.notify_all();
            if let (State::Left, Some(call)) = (before, call) {
                call(&path);
            }
        };
        self.run(Box::new(task));
    }

    fn run(&self, task: Box<dyn FnOnce() + Send>) {
        let mut queue = lock(&self.queue);
        queue.tasks.push_back(task);
        if queue.threads >= together::most() {
            return;
        }
        let tasks = Arc::clone(&self.queue);
        let spawned = together::deep().spawn(move || {
            together::stand_back();
            work(&tasks);
        });
        if spawned.is_ok() {
            queue.threads += 1;
        } else if queue.threads == 0 {
            // No thread can be had: then on this one.
            queue.threads = 1;
            drop(queue);
            work(&self.queue);
        }
    }

    /// What became of a file that was begun; none: it is not done by then, and will be called for. The inner none: it
    /// is not there. Whoever changes a file that was left has its new content read when they are called.
    pub(super) fn wait(&mut self, path: &Path, until: Option<Instant>) -> Option<Option<Known>> {
        let known = self.jobs.get(path)?.wait(until)?;
        self.jobs.remove(path);
        Some(known)
    }
}

impl Job {
    /// Whether it is done, and the file has changed since.
    fn is_stale(&self, path: &Path) -> bool {
        match &*lock(&self.state) {
            State::Done(Some(known)) => !known.looks_same(path),
            State::Done(None) => path.exists(),
            _ => false,
        }
    }

    /// Waits for the end, if it comes by then; one that was left before is not waited for again.
    fn wait(&self, until: Option<Instant>) -> Option<Option<Known>> {
        let mut state = lock(&self.state);
        loop {
            match std::mem::replace(&mut *state, State::Left) {
                State::Done(known) => return Some(known),
                State::Left => return None,
                State::Awaited => {}
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            *state = State::Awaited;
            state = match left {
                None => self
                    .done
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.done.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Does what there is to do, and ends.
fn work(queue: &Mutex<Queue>) {
    loop {
        let task = {
            let mut queue = lock(queue);
            let Some(task) = queue.tasks.pop_front() else {
                queue.threads -= 1;
                return;
            };
            task
        };
        task();
    }
}
