//! What changes of files lead to, without watching them: each test writes files and looks.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_core::clock::SystemClock;
use tidegate_core::metrics::Registry;
use tidegate_core::services::Services;
use tidegate_gateway::state::{MemoryStore, TokenBuckets};
use tidegate_wasm::{Compiler, Engine, EngineOptions, Kind};

use super::*;
use crate::logging::GuestLog;
use crate::run::filters::State;
use crate::run::start::lock;

/// A folder with a configuration and plugins, and what reads them.
struct Stage {
    folder: TempDir,
    reader: Reader,
}

/// A filter; each version has other bytes.
fn version(number: u32) -> Vec<u8> {
    let text = format!(
        r#"(module (@custom "version" "{number}")
            (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))"#
    );
    wat::parse_str(text).unwrap()
}

/// A filter that fails while it reads its configuration.
fn failing() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 16)
            (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32)
                unreachable))"#,
    )
    .unwrap()
}

fn services() -> Services {
    let clock = Arc::new(SystemClock);
    Services {
        store: Arc::new(MemoryStore::new(clock.clone(), 1 << 20)),
        limiter: Arc::new(TokenBuckets::new(clock.clone())),
        metrics: Arc::new(Registry::new()),
        log: Arc::new(GuestLog),
        clock,
    }
}

/// A compiler for which some files take as long as a test wants.
#[derive(Debug, Default)]
struct Patient {
    open: Mutex<bool>,
    opened: Condvar,
}

/// Bytes by which it knows such a file.
const SLOW: &[u8] = b"takes long";

impl Patient {
    fn open(&self) {
        *lock(&self.open) = true;
        self.opened.notify_all();
    }
}

// SAFETY: what it gives is what `precompile` of this process gave.
#[expect(unsafe_code, reason = "a compiler vouches for its code")]
unsafe impl Compiler for Patient {
    fn compile(&self, kind: Kind, file: &[u8]) -> Result<Vec<u8>, String> {
        if file.windows(SLOW.len()).any(|it| it == SLOW) {
            let open = self.opened.wait_while(lock(&self.open), |open| !*open);
            drop(open);
        }
        tidegate_wasm::precompile(kind, file)
    }
}

/// A filter that takes long to compile.
fn slow() -> Vec<u8> {
    let text = String::from_utf8(SLOW.to_vec()).unwrap();
    let text = format!(
        r#"(module (@custom "note" "{text}")
            (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))"#
    );
    wat::parse_str(text).unwrap()
}

impl Stage {
    /// Writes files, `tidegate.toml` perhaps among them, and starts.
    fn new(files: &[(&str, &[u8])]) -> (Self, Report) {
        Self::with(files, EngineOptions::default())
    }

    /// As [`new`](Self::new), with a compiler for which files may take long, and the files that were called for.
    fn with_patience(
        files: &[(&str, &[u8])],
    ) -> (Self, Arc<Patient>, std::sync::mpsc::Receiver<PathBuf>) {
        let patient = Arc::new(Patient::default());
        let options = EngineOptions {
            compiler: Some(Arc::clone(&patient) as Arc<dyn Compiler>),
            ..EngineOptions::default()
        };
        let (mut stage, _) = Self::with(files, options);
        let (call, called) = std::sync::mpsc::channel();
        stage.reader.when_compiled(Arc::new(move |path: &Path| {
            let _ = call.send(path.to_owned());
        }));
        (stage, patient, called)
    }

    fn with(files: &[(&str, &[u8])], engine: EngineOptions) -> (Self, Report) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let written = folder.path().join("tidegate.toml");
        let options = Options {
            config: written.exists().then_some(written.clone()),
            plugins: Some(folder.path().join("plugins")),
            ..Options::default()
        };
        let outcome = config::load(&options, &Environment::Process);
        let tools = Tools {
            engine: Engine::new(engine).unwrap(),
            services: services(),
        };
        let checked = outcome.checked.unwrap();
        let file = written.exists().then_some(written);
        let mut reader = Reader::new(options, tools, checked, file, &outcome.mistakes);
        let report = reader.start().unwrap();
        (Stage { folder, reader }, report)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    fn look(&mut self) -> Report {
        self.reader.look(&Look::default(), Reach::Change)
    }

    fn look_without(&mut self, name: &str) -> Report {
        let mut look = Look::default();
        look.held.insert(self.folder.path().join(name));
        self.reader.look(&look, Reach::Change)
    }
}

/// Loaded, failed (`!`), recovered (`~`) and removed (`-`) filters.
fn news(report: &Report) -> Vec<String> {
    let news = report.news.iter();
    news.map(|news| match news {
        News::Loaded { filter, .. } => filter.to_string(),
        News::Failed { filter, .. } => format!("!{filter}"),
        News::Recovered { filter, .. } => format!("~{filter}"),
        News::Removed { filter } => format!("-{filter}"),
    })
    .collect()
}

fn status<'a>(report: &'a Report, name: &str) -> &'a Status {
    let mut statuses = report.statuses.iter();
    statuses.find(|status| status.name == name).unwrap()
}

/// The filters that stand in a chain, with whether they run.
fn chain(stage: &Stage) -> Vec<(String, bool)> {
    let slots = stage.reader.filters.slots(&stage.reader.checked);
    let slots = slots.into_iter();
    slots
        .map(|(_, slot)| (slot.name.to_string(), slot.module.is_some()))
        .collect()
}

const NAMED: &[u8] = b"[upstream.u]\nendpoints = [\"http://127.0.0.1:9\"]\n[[route]]\nupstream = \"u\"\nfilters = [\"a\"]\n";

#[test]
fn a_new_version_replaces_the_old_one_and_the_same_bytes_do_not() {
    let (mut stage, start) = Stage::new(&[("plugins/a.wasm", &version(1))]);
    assert_eq!(news(&start), ["a"]);
    let since = status(&start, "a").since.clone();
    let report = stage.look();
    assert!(report.snapshot.is_none() && report.news.is_empty());

    stage.write("plugins/a.wasm", &version(1));
    let report = stage.look();
    assert!(report.snapshot.is_none() && report.news.is_empty());
    assert_eq!(status(&report, "a").since, since);

    stage.write("plugins/a.wasm", &version(2));
    let report = stage.look();
    assert_eq!(news(&report), ["a"]);
    assert!(report.snapshot.is_some());
    assert_ne!(status(&report, "a").since, since);
}

#[test]
fn a_bad_version_leaves_the_last_good_one_and_is_told_once() {
    for bad in [b"garbage".to_vec(), Vec::new(), failing()] {
        let (mut stage, _) = Stage::new(&[("plugins/a.wasm", &version(1))]);
        stage.write("plugins/a.wasm", &bad);
        stage.write("plugins/b.wasm", &version(1));
        let report = stage.look();
        assert_eq!(news(&report), ["!a", "b"], "the other file goes on");
        let entry = status(&report, "a");
        assert_eq!((entry.state, entry.running), (State::Failed, true));
        let reason = entry.reason.clone().unwrap();
        assert!(reason.contains("a.wasm: "), "{reason}");
        assert!(entry.rejected_digest.is_some());

        // Touched, and looked at again for other reasons: it is the same file.
        stage.write("plugins/a.wasm", &bad);
        assert!(stage.look().news.is_empty());
        // Who asks is told again.
        let report = stage.reader.look(&Look::default(), Reach::Again);
        assert_eq!(news(&report), ["!a"]);

        stage.write("plugins/a.wasm", &version(1));
        let report = stage.look();
        assert_eq!(news(&report).len(), 1);
        assert_eq!(status(&report, "a").state, State::Ok);
    }
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let (mut stage, _) = Stage::new(&[("plugins/a.wasm", &version(1))]);
    stage.write("plugins/a.wasm", b"half");
    let report = stage.look_without("plugins/a.wasm");
    assert!(report.news.is_empty() && report.snapshot.is_none());
    // A new one does not stand in the chain before it is whole.
    stage.write("plugins/b.wasm", b"half");
    let report = stage.look_without("plugins/b.wasm");
    assert_eq!(status(&report, "b").state, State::Waiting);
    assert_eq!(chain(&stage), [("a".to_owned(), true)]);
}

#[test]
fn a_new_file_that_is_bad_does_not_stand_in_everyones_way() {
    let (mut stage, _) = Stage::new(&[("plugins/a.wasm", &version(1))]);
    stage.write("plugins/b.wasm", b"garbage");
    assert_eq!(news(&stage.look()), ["!b"]);
    assert_eq!(chain(&stage), [("a".to_owned(), true)]);
    stage.write("plugins/b.wasm", &version(1));
    stage.look();
    assert_eq!(
        chain(&stage),
        [("a".to_owned(), true), ("b".to_owned(), true)]
    );
}

#[test]
fn a_file_that_is_bad_from_the_start_answers_by_its_policy_until_it_is_good() {
    let (mut stage, start) = Stage::new(&[
        ("plugins/a.wasm", b"garbage"),
        ("plugins/b.wasm", &version(1)),
    ]);
    assert_eq!(news(&start), ["!a", "b"]);
    let closed = [("a".to_owned(), false), ("b".to_owned(), true)];
    assert_eq!(chain(&stage), closed);
    // No other change opens it.
    stage.write("plugins/b.wasm", &version(2));
    stage.look();
    assert_eq!(chain(&stage), closed);
    stage.write("plugins/a.wasm", &version(1));
    stage.look();
    assert!(chain(&stage).iter().all(|(_, runs)| *runs));
}

#[test]
fn a_removed_file_is_gone_unless_a_route_names_it() {
    let (mut stage, _) = Stage::new(&[("plugins/a.wasm", &version(1))]);
    stage.remove("plugins/a.wasm");
    assert_eq!(news(&stage.look()), ["-a"]);
    assert!(chain(&stage).is_empty());

    let (mut stage, _) = Stage::new(&[("tidegate.toml", NAMED), ("plugins/a.wasm", &version(1))]);
    stage.remove("plugins/a.wasm");
    let report = stage.look();
    assert_eq!(news(&report), ["!a"]);
    assert_eq!(chain(&stage), [("a".to_owned(), true)]);
    // The same version again is no new one.
    stage.write("plugins/a.wasm", &version(1));
    assert_eq!(news(&stage.look()), ["~a"]);
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_told_once() {
    let (mut stage, _) = Stage::new(&[("tidegate.toml", NAMED), ("plugins/a.wasm", &version(1))]);
    let bad = String::from_utf8_lossy(NAMED).replace("upstream = ", "upstraem = ");
    stage.write("tidegate.toml", bad.as_bytes());
    let Configuration::Refused { mistakes, again } = stage.look().configuration else {
        panic!("it was taken");
    };
    assert!(!again);
    assert!(mistakes[0].contains("tidegate.toml:4:1: "), "{mistakes:?}");
    assert!(mistakes[0].contains("did you mean"), "{mistakes:?}");

    // Filters that run can be replaced all the same.
    stage.write("plugins/a.wasm", &version(2));
    let report = stage.look();
    assert_eq!(news(&report), ["a"]);
    assert!(matches!(
        report.configuration,
        Configuration::Refused { again: true, .. }
    ));

    stage.remove("tidegate.toml");
    assert!(matches!(
        stage.look().configuration,
        Configuration::Refused { again: false, .. }
    ));
    stage.write("tidegate.toml", NAMED);
    let report = stage.look();
    assert_eq!(report.configuration, Configuration::Same);
}

#[test]
fn a_filters_own_settings_concern_only_that_filter() {
    let (mut stage, _) = Stage::new(&[
        ("plugins/a.wasm", &version(1)),
        ("plugins/b.wasm", &version(1)),
    ]);
    stage.write("plugins/a.toml", b"failure = \"sideways\"");
    stage.write("plugins/b.toml", b"failure = \"open\"");
    let report = stage.look();
    assert_eq!(news(&report), ["!a"]);
    let reason = status(&report, "a").reason.clone().unwrap();
    assert!(reason.contains("a.toml:1:"), "{reason}");
    let slots = stage.reader.filters.slots(&stage.reader.checked);
    assert_eq!(slots[1].1.failure, tidegate_gateway::Failure::Open);
    stage.write("plugins/a.toml", b"config = { key = 1 }");
    let report = stage.look();
    assert_eq!(
        news(&report),
        ["a"],
        "another configuration is a new version"
    );
}

#[test]
fn files_that_no_route_uses_are_looked_at_after_the_start() {
    let files: [(&str, &[u8]); 3] = [
        ("tidegate.toml", NAMED),
        ("plugins/a.wasm", &version(1)),
        ("plugins/z.wasm", b"garbage"),
    ];
    let (mut stage, start) = Stage::new(&files);
    assert_eq!(news(&start), ["a"]);
    let report = stage.look();
    assert_eq!(news(&report), ["!z"]);
    assert!(report.snapshot.is_none());
    stage.write("plugins/z.wasm", &version(1));
    let report = stage.look();
    assert_eq!(news(&report), ["~z"]);
    let entry = status(&report, "z");
    assert_eq!(
        (entry.state, entry.used, entry.running),
        (State::Ok, false, false)
    );
    let since = entry.since.clone();
    assert!(since.is_some());
    assert_eq!(status(&stage.look(), "z").since, since);
}

#[test]
fn what_is_no_filter_at_all_is_told_once() {
    let (mut stage, _) = Stage::new(&[]);
    let path = stage.folder.path().join("plugins/folder.wasm");
    fs::create_dir(path).unwrap();
    let strays = stage.look().strays;
    assert_eq!(strays.len(), 1);
    assert!(strays[0].contains("folder.wasm"), "{strays:?}");
    assert!(stage.look().strays.is_empty());
}

#[test]
fn a_swap_of_links_is_seen_by_what_they_lead_to() {
    let (mut stage, _) = Stage::new(&[]);
    let plugins = stage.folder.path().join("plugins");
    let publish = |name: &str, number: u32| {
        fs::create_dir(plugins.join(name)).unwrap();
        fs::write(plugins.join(name).join("a.wasm"), version(number)).unwrap();
        std::os::unix::fs::symlink(name, plugins.join("..tmp")).unwrap();
        fs::rename(plugins.join("..tmp"), plugins.join("..data")).unwrap();
    };
    publish("..1", 1);
    std::os::unix::fs::symlink(Path::new("..data/a.wasm"), plugins.join("a.wasm")).unwrap();
    assert_eq!(news(&stage.look()), ["a"]);
    publish("..2", 2);
    assert_eq!(news(&stage.look()), ["a"]);
    assert!(stage.look().news.is_empty());
}

const TWO: &str = "[upstream.u]\nendpoints = [\"http://127.0.0.1:1\"]\n\
    [[route]]\nfilters = [\"a\", \"b\"]\n";
/// How long a test waits for what must come.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_file_that_takes_long_to_compile_holds_nothing_else_up() {
    let (mut stage, patient, called) = Stage::with_patience(&[
        ("tidegate.toml", TWO.as_bytes()),
        ("plugins/a.wasm", &version(1)),
        ("plugins/b.wasm", &version(2)),
    ]);
    stage.write("plugins/a.wasm", &slow());
    stage.write("plugins/b.wasm", &version(3));
    stage.write(
        "tidegate.toml",
        format!("{TWO}methods = [\"GET\"]").as_bytes(),
    );
    let report = stage.look();
    assert_eq!(news(&report), ["b"]);
    assert!(matches!(
        report.configuration,
        Configuration::Changed { .. }
    ));
    assert!(report.snapshot.is_some());
    // It runs on as it was, and is not begun again, nor waited for.
    let report = stage.look();
    assert!(news(&report).is_empty());
    assert!(report.statuses.iter().all(|status| status.running));
    stage.write("plugins/b.wasm", &version(4));
    assert_eq!(news(&stage.look()), ["b"]);
    patient.open();
    let file = called.recv_timeout(LONG).unwrap();
    assert!(file.ends_with("plugins/a.wasm"), "{}", file.display());
    assert_eq!(news(&stage.look()), ["a"]);
    assert!(called.try_recv().is_err(), "called for what was waited for");
}

#[test]
fn a_file_that_changes_while_it_is_compiled_is_compiled_again() {
    let (mut stage, patient, called) = Stage::with_patience(&[
        ("tidegate.toml", TWO.as_bytes()),
        ("plugins/a.wasm", &version(1)),
        ("plugins/b.wasm", &version(2)),
    ]);
    stage.write("plugins/a.wasm", &slow());
    assert!(news(&stage.look()).is_empty());
    stage.write("plugins/a.wasm", &version(30));
    assert!(news(&stage.look()).is_empty(), "one at a time");
    patient.open();
    called.recv_timeout(LONG).unwrap();
    let report = stage.look();
    assert_eq!(news(&report), ["a"]);
    let status = report.statuses.iter().find(|status| status.name == "a");
    assert_eq!(
        status.and_then(|status| status.digest.as_deref()),
        Some(
            &*Engine::new(EngineOptions::default())
                .unwrap()
                .compile(&version(30))
                .unwrap()
                .digest()
                .to_owned()
        )
    );
}

#[test]
fn a_configuration_waits_for_the_new_filter_that_it_names_and_nobody_for_the_configuration() {
    let (mut stage, patient, called) = Stage::with_patience(&[
        ("tidegate.toml", TWO.as_bytes()),
        ("plugins/a.wasm", &version(1)),
        ("plugins/b.wasm", &version(2)),
    ]);
    stage.write("plugins/new.wasm", &slow());
    stage.write("plugins/b.wasm", &version(3));
    let with_new = TWO.replace("\"b\"]", "\"b\", \"new\"]");
    stage.write("tidegate.toml", with_new.as_bytes());
    let report = stage.look();
    assert_eq!(news(&report), ["b"]);
    assert_eq!(report.configuration, Configuration::Same);
    patient.open();
    called.recv_timeout(LONG).unwrap();
    let report = stage.look();
    assert_eq!(news(&report), ["new"]);
    assert!(matches!(
        report.configuration,
        Configuration::Changed { .. }
    ));
}
