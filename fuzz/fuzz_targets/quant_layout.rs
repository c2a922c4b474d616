//! Types and shapes of a matrix's tensors against a configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = amoeba_checkpoint::fuzzing::quant_layout(bytes);
});
