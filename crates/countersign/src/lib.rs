//! The webhook and its command line.
