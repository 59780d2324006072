"""Modality profiles, one module each; registered under the entry point group ``miad_gateway.modalities``.

The constant k of the masked threshold: `deploy/docs/mark.md`, budgets, allows a peak of one noise sd for MR and
radiographs and of twice an RMS of 0.3 sd for CT. A change of one sd of the surrounding noise, with no structure of its
own, is what the noise itself does to a third of the pixels. Where noise is also removed by reconstruction kernels (CT),
readers know the texture well and the smaller factor holds.

Which facts a profile gives, and where they are used: how stored values are shown (``windows``, ``relative_windows``;
the header's own window comes first, rescale and polarity are the header's), the budget in display units and in units
of its own (``noise_factor``, ``peak``, ``peak_units``), how much of it may be colour (``chroma``), and the band that
survives a classifier's resize (``texture_side``).
"""
