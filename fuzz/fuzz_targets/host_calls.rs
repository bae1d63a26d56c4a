//! `cargo fuzz run host_calls`. It must know no more than which target it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidegate_fuzz::targets::host_calls::fuzz(data);
});
