"""The Fleet page of Flower, and the API below it.

Flower has no hook for plugins. ``install`` puts a function in the place where Flower's command
finds its application, and ``app`` gives the application what it takes for the page. Names that
begin with ``flower.`` are Flower's own modules; this package is ``celery_concurrent.flower``.
"""
