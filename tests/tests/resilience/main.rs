//! Faults and load: outages, crashes, overload, memory, rolling restarts.

mod chaos;
mod exchange;
mod followers;
mod issuer;
mod leaving;
mod lost_answers;
mod memory;
mod outage;
mod outage_sqlite;
mod overload;
mod reminders;
mod rolling;
mod streams;
