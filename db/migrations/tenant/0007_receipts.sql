ALTER TABLE `entry` ADD `revision` text;--> statement-breakpoint
ALTER TABLE `entry` ADD `cache_miss_reason` text;