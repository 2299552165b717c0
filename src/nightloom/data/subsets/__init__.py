"""Parts and unions of the data: by event, by user, by time, by domain."""
