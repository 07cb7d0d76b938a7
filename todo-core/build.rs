//! `sqlx::migrate!` embeds the migrations, but on a stable compiler does not tell cargo about them.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
