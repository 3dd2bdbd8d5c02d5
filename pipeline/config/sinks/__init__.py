"""The kinds of sink, one module for each family; `pipeline.config.publish` joins them."""
