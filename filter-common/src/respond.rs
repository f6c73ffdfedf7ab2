//! Answers to what is blocked: the frames that tell a client, and the way to the block page.

pub mod counted;
