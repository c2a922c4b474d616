//! A whole weight file, and the same bytes as a shard index.
#![no_main]

use amoeba_checkpoint::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzzing::safetensors_header(bytes);
    let _ = fuzzing::shard_index(bytes);
});
