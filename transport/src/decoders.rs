//! The decoders of what strangers send, as the fuzz targets call them. Not an interface.

use bytes::Bytes;

use crate::framing::{Assembler, TooLong};
use crate::greeting::Greeting;
use crate::{CloseCode, Identity};

/// Puts the messages of one stream together. `Err` once one is announced that is longer than `max_message`.
pub fn assemble(
    pieces: impl IntoIterator<Item = Bytes>,
    max_message: usize,
    mut whole: impl FnMut(Bytes),
) -> Result<(), &'static str> {
    let mut assembler = Assembler::new(max_message);
    for piece in pieces {
        assembler.push(piece, &mut whole).map_err(|TooLong| "a message beyond the limit was announced")?;
    }
    Ok(())
}

/// Reads a greeting, and gives its bytes.
pub fn greeting(bytes: &[u8]) -> Result<Bytes, CloseCode> {
    Greeting::decode(bytes).map(Greeting::encode)
}

/// Reads a certificate's name.
#[must_use]
pub fn identity(name: &str) -> Option<Identity> {
    Identity::parse(name)
}
