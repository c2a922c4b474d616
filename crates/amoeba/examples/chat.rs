//! Two turns of a chat: the callback interface.
//!
//! `cargo run --release --example chat -- [MODEL]`
use std::io::Write;
use std::ops::ControlFlow;

use amoeba::{Conversation, Piece, Request, Sampling};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut model = match std::env::args().nth(1) {
        Some(name) => amoeba::load(name)?,
        None => amoeba::load(amoeba::bundled_model()?)?,
    };
    println!("[{}]", model.describe());

    let sampling = Sampling { temperature: 0.0, ..model.defaults() };
    let request = Request { sampling, max_tokens: Some(60), ..Request::default() };
    let mut conversation = Conversation::new(None);
    for question in ["What is the capital of France?", "Tell me about the moon."] {
        println!("\n> {question}");
        let reply = conversation.ask(&mut model, question, &request, &mut |piece| {
            if let Piece::Answer(text) = piece {
                print!("{text}");
                let _ = std::io::stdout().flush();
            }
            ControlFlow::Continue(())
        })?;
        let stats = reply.stats;
        println!("\n[{} prompt tokens, {} of them reused]", stats.prompt_tokens, stats.reused_tokens);
    }
    Ok(())
}
