DROP VIEW signups;
