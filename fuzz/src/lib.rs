//! What the fuzz targets call.
//!
//! A target takes bytes, decodes them and panics if a promise does not hold: no panic in the decoder, memory bounded by
//! the input, what was decoded encodes to bytes that decode to the same, an error says what is wrong.

pub mod allocation;
pub mod decoders;
pub mod server;
