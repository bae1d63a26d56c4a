//! `cargo fuzz run auth_token`. It must know no more than which target it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidegate_fuzz::targets::auth_token::fuzz(data);
});
