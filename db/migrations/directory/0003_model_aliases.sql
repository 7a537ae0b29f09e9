CREATE TABLE `model_alias` (
	`name` text PRIMARY KEY NOT NULL,
	`models` text NOT NULL,
	`created_at_ms` integer NOT NULL
);
