CREATE TABLE `identity` (
	`id` integer PRIMARY KEY NOT NULL,
	`tenant` text NOT NULL,
	CONSTRAINT "identity_one_row" CHECK("identity"."id" = 1)
);
