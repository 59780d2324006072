"""What a mark does to networks that it was and was not made for, beside its controls, and what removal gets back.

One command: ``python -m tests.benchmarks.mark`` (see ``__main__``). The rules are those of ``deploy/docs/mark.md``,
evaluation rules. From the ground up: ``data`` (images), ``store`` (finished cells), ``stats``; ``victims`` (held-out
networks);
``frames`` (one image with the region and energy that every method gets), ``marking``, ``attacks`` and ``methods`` (the
columns); ``treatments``, ``remover``, ``averaging`` and ``finetune`` (removal); ``stages`` (what is run);
``columns``, ``targets``, ``report`` and ``picture`` (what is shown).
"""
