DROP VIEW signups;
DROP FUNCTION signups_insert;
