//! The built program against the git servers that people run, each as its own program on loopback: whole passes over
//! apache2, nginx with fcgiwrap, gitolite behind sshd and Dulwich, and through squid.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod dulwich;
mod gitolite;
mod host;
mod passes;
#[path = "../scene/mod.rs"]
mod scene;
#[path = "../servers/mod.rs"]
mod servers;
mod squid;
mod web;
