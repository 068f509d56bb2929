from tests.pipeline.samples import inputs, new_site, one_thread, pristine, site

__all__ = ["inputs", "new_site", "one_thread", "pristine", "site"]
