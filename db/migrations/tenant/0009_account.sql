CREATE TABLE `audit_log` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`at_ms` integer NOT NULL,
	`actor_key_id` text,
	`action` text NOT NULL,
	`object` text NOT NULL,
	`detail` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `webhook` (
	`id` text PRIMARY KEY NOT NULL,
	`url` text NOT NULL,
	`label` text NOT NULL,
	`events` text NOT NULL,
	`status` text NOT NULL,
	`disabled_reason` text,
	`secret` text NOT NULL,
	`previous_secret` text,
	`previous_until_ms` integer,
	`low_balance_nano_usd` integer,
	`is_low` integer NOT NULL,
	`budget_percents` text NOT NULL,
	`failing_since_ms` integer,
	`created_at_ms` integer NOT NULL,
	CONSTRAINT "webhook_previous" CHECK(("webhook"."previous_secret" IS NULL) = ("webhook"."previous_until_ms" IS NULL))
);
--> statement-breakpoint
CREATE TABLE `webhook_delivery` (
	`webhook_id` text NOT NULL,
	`event_id` text NOT NULL,
	`status` text NOT NULL,
	`tries` integer NOT NULL,
	`next_at_ms` integer,
	`created_at_ms` integer NOT NULL,
	PRIMARY KEY(`webhook_id`, `event_id`),
	CONSTRAINT "webhook_delivery_next" CHECK(("webhook_delivery"."status" = 'pending') = ("webhook_delivery"."next_at_ms" IS NOT NULL))
);
--> statement-breakpoint
CREATE INDEX `webhook_delivery_event` ON `webhook_delivery` (`event_id`);--> statement-breakpoint
CREATE INDEX `webhook_delivery_due` ON `webhook_delivery` (`next_at_ms`) WHERE "webhook_delivery"."status" = 'pending';--> statement-breakpoint
CREATE TABLE `webhook_event` (
	`id` text PRIMARY KEY NOT NULL,
	`type` text NOT NULL,
	`body` text NOT NULL,
	`cause` text,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `webhook_event_cause_unique` ON `webhook_event` (`cause`);--> statement-breakpoint
CREATE INDEX `webhook_event_created` ON `webhook_event` (`created_at_ms`);--> statement-breakpoint
CREATE TABLE `webhook_try` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`webhook_id` text NOT NULL,
	`event_id` text NOT NULL,
	`at_ms` integer NOT NULL,
	`duration_ms` integer NOT NULL,
	`http_status` integer,
	`error` text
);
--> statement-breakpoint
CREATE INDEX `webhook_try_of` ON `webhook_try` (`webhook_id`,`event_id`);