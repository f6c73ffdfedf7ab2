//! Tests of the tables and the compiler.
