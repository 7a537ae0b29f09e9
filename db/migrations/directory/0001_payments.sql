CREATE TABLE `payment` (
	`source` text PRIMARY KEY NOT NULL,
	`tenant` text NOT NULL,
	`amount_nano_usd` integer NOT NULL,
	`state` text NOT NULL,
	`began_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `payment_tenant` ON `payment` (`tenant`,`source`);