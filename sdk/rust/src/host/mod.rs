//! The host's functions in Rust's words: the real ones on wasm, a mock everywhere else.

#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod mock;

#[cfg(target_arch = "wasm32")]
pub(crate) use guest::*;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use mock::calls::*;

/// Where fields stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Request,
    RequestTrailers,
    Response,
    ResponseTrailers,
}

/// The types of the services.
pub(crate) mod services {
    /// What a token bucket said.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Verdict {
        /// Whether the tokens were taken.
        pub allowed: bool,
        /// Whole tokens that are left.
        pub remaining: u32,
        /// Nanoseconds until the same call would be allowed; 0 if it was.
        pub retry_after_ns: u64,
        /// Nanoseconds until the bucket is full.
        pub reset_after_ns: u64,
    }

    /// Why the store did not do what it was asked.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum StoreError {
        /// The operator did not grant this namespace.
        NotGranted,
        /// Key over 512 bytes or value over 64 KiB.
        TooLarge,
        /// The value is no decimal number in range.
        NotANumber,
        /// It can't be reached.
        Unavailable,
    }

    /// Why a call failed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CallError {
        /// The operator did not grant this upstream.
        NotGranted,
        /// Nothing that could be sent.
        InvalidRequest,
        /// No endpoint could be reached.
        Unreachable,
        /// It took too long.
        TimedOut,
        /// The answer is longer than was allowed.
        ResponseTooLarge,
        /// The connection broke, or what came was no HTTP.
        Broken,
        /// Not while configuring or logging.
        NotNow,
    }

    /// An upstream's whole answer.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct CallResponse {
        /// The status.
        pub status: u16,
        /// The fields, in their order.
        pub fields: Vec<(String, Vec<u8>)>,
        /// The body.
        pub body: Vec<u8>,
    }

    macro_rules! display {
        ($ty:ident { $($variant:ident => $text:literal),* $(,)? }) => {
            impl core::fmt::Display for $ty {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    f.write_str(match self { $($ty::$variant => $text),* })
                }
            }
            impl core::error::Error for $ty {}
        };
    }

    display!(StoreError {
        NotGranted => "the namespace is not granted",
        TooLarge => "the key or the value is too large",
        NotANumber => "the value is not a number in range",
        Unavailable => "the store can't be reached",
    });
    display!(CallError {
        NotGranted => "the upstream is not granted",
        InvalidRequest => "the call could not be sent as it was asked for",
        Unreachable => "no endpoint of the upstream could be reached",
        TimedOut => "the upstream did not answer in time",
        ResponseTooLarge => "the upstream's answer is too large",
        Broken => "the upstream broke the call off",
        NotNow => "a call can't be made in this phase",
    });
}
