//! `cargo fuzz run header_template`. It must know no more than which target it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidegate_fuzz::targets::header_template::fuzz(data);
});
