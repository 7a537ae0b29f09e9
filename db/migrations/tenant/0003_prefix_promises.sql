ALTER TABLE `usage_daily` ADD `prefix_promised` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `usage_daily` ADD `prefix_broken` integer DEFAULT 0 NOT NULL;