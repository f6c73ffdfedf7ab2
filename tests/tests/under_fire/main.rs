//! The block page under fire, through the real filter: what nobody asked for goes to no third party, what
//! visitors take is bounded and over when they are gone, whatever ends or stops meanwhile, and the neighbour on
//! the same address does not notice.

mod changes;
mod crowd;
mod endings;
mod forged;
mod lossy;
mod ports;
mod replayed;
mod scene;
