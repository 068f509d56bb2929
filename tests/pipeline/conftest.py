from tests.pipeline.samples import inputs, make_on_engine, new_site, one_thread, pristine, site

__all__ = ["inputs", "make_on_engine", "new_site", "one_thread", "pristine", "site"]
