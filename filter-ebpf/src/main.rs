//! The XDP program of edgefilter.
#![no_std]
#![no_main]
