#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = d_engine_fuzz::decoders::segment(bytes);
});
