//! `migrations` is a link to the folder beside this crate, so that a package of it has them.
//! `sqlx::migrate!` embeds the migrations, but on a stable compiler does not tell cargo about them.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
