-- The database leat, Leat's own, is made by the image.
create database chinook;
create database reporting;
