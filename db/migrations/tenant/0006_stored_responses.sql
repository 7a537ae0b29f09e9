CREATE TABLE `stored_response` (
	`id` text PRIMARY KEY NOT NULL,
	`previous_id` text,
	`input` text NOT NULL,
	`response` text NOT NULL,
	`bytes` integer NOT NULL,
	`created_at_ms` integer NOT NULL,
	`used_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `stored_response_used` ON `stored_response` (`used_at_ms`);--> statement-breakpoint
CREATE TABLE `stored_response_size` (
	`id` integer PRIMARY KEY NOT NULL,
	`rows` integer NOT NULL,
	`bytes` integer NOT NULL,
	CONSTRAINT "stored_response_size_one_row" CHECK("stored_response_size"."id" = 1),
	CONSTRAINT "stored_response_size_positive" CHECK("stored_response_size"."rows" >= 0 AND "stored_response_size"."bytes" >= 0)
);
--> statement-breakpoint
ALTER TABLE `entry` ADD `alias` text;--> statement-breakpoint
ALTER TABLE `hold` ADD `alias` text;
--> statement-breakpoint
INSERT INTO `stored_response_size` (`id`, `rows`, `bytes`) VALUES (1, 0, 0);
