//! `config.json` and its quantization object.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = amoeba_checkpoint::fuzzing::config_json(bytes);
});
