"""Documents: upload PDF, HTML or text, have it read, embedded and indexed in the background, and search it.

    make documents                       or: python -m examples.documents FOLDER

`app` is the application, `extract` reads documents, `minilm` embeds their text, `index` finds it again.
"""

import os

# Several documents are embedded at once, each in a thread: a thread for each processor in each of them,
# as is OpenBLAS's own choice, makes all of them wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
