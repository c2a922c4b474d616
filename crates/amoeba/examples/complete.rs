//! Continues a text: the iterator interface.
//!
//! `cargo run --release --example complete -- ["TEXT" [MODEL]]`
use std::io::Write;

use amoeba::{Piece, Request, Sampling};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let text = args.next().unwrap_or_else(|| "Once upon a time".to_owned());
    let mut model = match args.next() {
        Some(name) => amoeba::load(name)?,
        None => amoeba::load(amoeba::bundled_model()?)?,
    };

    let prompt = model.raw_prompt(&text)?;
    let sampling = Sampling { seed: 7, ..model.defaults() };
    let request = Request { sampling, max_tokens: Some(40), ..Request::default() };
    print!("{text}");
    let mut generation = model.generate(&prompt, &request)?;
    for piece in &mut generation {
        if let Piece::Answer(text) = piece? {
            print!("{text}");
            std::io::stdout().flush()?;
        }
    }
    let stats = generation.stats();
    println!("\n[{} tokens in {:?}]", stats.generated_tokens, stats.prefill + stats.decode);
    Ok(())
}
