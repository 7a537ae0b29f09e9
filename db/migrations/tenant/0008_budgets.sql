CREATE TABLE `budget` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`key_id` text,
	`name` text,
	`zone` text NOT NULL,
	`created_at_ms` integer NOT NULL,
	CONSTRAINT "budget_of_key_or_named" CHECK(("budget"."key_id" IS NULL) <> ("budget"."name" IS NULL))
);
--> statement-breakpoint
CREATE UNIQUE INDEX `budget_key_id_unique` ON `budget` (`key_id`);--> statement-breakpoint
CREATE UNIQUE INDEX `budget_name_unique` ON `budget` (`name`);--> statement-breakpoint
CREATE TABLE `budget_limit` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`budget_id` integer NOT NULL,
	`period` text NOT NULL,
	`limit_nano_usd` integer NOT NULL,
	CONSTRAINT "budget_limit_amount" CHECK("budget_limit"."limit_nano_usd" >= 0)
);
--> statement-breakpoint
CREATE UNIQUE INDEX `budget_limit_period` ON `budget_limit` (`budget_id`,`period`);--> statement-breakpoint
CREATE TABLE `budget_window` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`limit_id` integer NOT NULL,
	`start_ms` integer NOT NULL,
	`end_ms` integer NOT NULL,
	`held_nano_usd` integer NOT NULL,
	`spent_nano_usd` integer NOT NULL,
	CONSTRAINT "budget_window_amounts" CHECK("budget_window"."held_nano_usd" >= 0 AND "budget_window"."spent_nano_usd" >= 0)
);
--> statement-breakpoint
CREATE UNIQUE INDEX `budget_window_start` ON `budget_window` (`limit_id`,`start_ms`);--> statement-breakpoint
ALTER TABLE `api_key` ADD `weight` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `api_key` ADD `expires_at_ms` integer;--> statement-breakpoint
ALTER TABLE `api_key` ADD `models` text;--> statement-breakpoint
ALTER TABLE `api_key` ADD `has_budget` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `entry` ADD `budgets` text;--> statement-breakpoint
ALTER TABLE `entry` ADD `budget_windows` text;--> statement-breakpoint
ALTER TABLE `entry` ADD `extended_nano_usd` integer;--> statement-breakpoint
ALTER TABLE `hold` ADD `extended_nano_usd` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `hold` ADD `budgets` text;--> statement-breakpoint
ALTER TABLE `hold` ADD `budget_windows` text;