//! Lines in the proxy's log, with the filter's name and the request's id. A line is cut at 4 KiB, and control characters in it
//! are escaped.
//!
//! There is a macro for each level, which writes its text only if the line will be kept, and a function of the same name for a
//! text that is ready:
//!
//! ```
//! use tidegate_sdk::prelude::*;
//!
//! let (name, refusal) = ("x-tenant", Refusal::TooLarge);
//! log::warn!("could not set `{name}`: {refusal}");
//! log::debug("no key was shown");
//! ```

use crate::host;

/// How loud a line is; the operator chooses which levels are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed, and somebody should look.
    Error,
    /// Something may fail soon, or was done in another way than was asked for.
    Warn,
    /// Something worth knowing happened; not for every request.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Every step.
    Trace,
}

/// Whether a line of this level would be kept: spares the work of gathering what it says. The macros ask by themselves.
///
/// ```
/// use tidegate_sdk::log::{self, Level};
///
/// if log::enabled(Level::Debug) {
///     // Sum up what is dear to sum up.
/// }
/// ```
pub fn enabled(level: Level) -> bool {
    host::log_enabled(level)
}

/// Writes a line of any level.
pub fn write(level: Level, message: &str) {
    host::log_write(level, message);
}

/// Writes a line that says that something failed. [`error!`](macro@error) takes a format.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Writes a line that says that something may fail soon. [`warn!`](macro@warn) takes a format.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line that says that something worth knowing happened. [`info!`](macro@info) takes a format.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line for whoever looks for a fault. [`debug!`](macro@debug) takes a format.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line for whoever follows every step. [`trace!`](macro@trace) takes a format.
pub fn trace(message: &str) {
    write(Level::Trace, message);
}

/// Writes a line of level [`Error`](crate::log::Level::Error), with a text as `format!` makes it.
///
/// ```
/// tidegate_sdk::log::error!("{} of {}", 3, 5);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($arg:tt)+) => {
        if $crate::log::enabled($crate::log::Level::Error) {
            $crate::log::error(&::std::format!($($arg)+));
        }
    };
}

/// Writes a line of level [`Warn`](crate::log::Level::Warn), with a text as `format!` makes it.
///
/// ```
/// tidegate_sdk::log::warn!("{} of {}", 3, 5);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($arg:tt)+) => {
        if $crate::log::enabled($crate::log::Level::Warn) {
            $crate::log::warn(&::std::format!($($arg)+));
        }
    };
}

/// Writes a line of level [`Info`](crate::log::Level::Info), with a text as `format!` makes it.
///
/// ```
/// tidegate_sdk::log::info!("{} of {}", 3, 5);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($arg:tt)+) => {
        if $crate::log::enabled($crate::log::Level::Info) {
            $crate::log::info(&::std::format!($($arg)+));
        }
    };
}

/// Writes a line of level [`Debug`](crate::log::Level::Debug), with a text as `format!` makes it.
///
/// ```
/// tidegate_sdk::log::debug!("{} of {}", 3, 5);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($arg:tt)+) => {
        if $crate::log::enabled($crate::log::Level::Debug) {
            $crate::log::debug(&::std::format!($($arg)+));
        }
    };
}

/// Writes a line of level [`Trace`](crate::log::Level::Trace), with a text as `format!` makes it.
///
/// ```
/// tidegate_sdk::log::trace!("{} of {}", 3, 5);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($arg:tt)+) => {
        if $crate::log::enabled($crate::log::Level::Trace) {
            $crate::log::trace(&::std::format!($($arg)+));
        }
    };
}

#[doc(inline)]
pub use crate::__log_debug as debug;
#[doc(inline)]
pub use crate::__log_error as error;
#[doc(inline)]
pub use crate::__log_info as info;
#[doc(inline)]
pub use crate::__log_trace as trace;
#[doc(inline)]
pub use crate::__log_warn as warn;
