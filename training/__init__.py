"""Training: settings, steps, Adam, evaluation.

    steps.py             the losses, and the step as the homework defines it; start reading here
    trainer.py           a network in training: one epoch of steps, and the state that it resumes from
    settings.py          the settings with their defaults, ranges and help; presets
    setup.py             a run's network and trainer; its device and threads
    splits.py            the rules that split interactions into a training, a validation and a test set
    scale.py             the unit of the ratings that a network learns
    baseline.py          the baseline of ratings: biases of users and items, and factors
    factors.py           these factors, by variational Bayes
    sampling.py          the order of the examples, and their negative items
    network.py           the making and checking of the network of models.py
    exercises.py         the exercise of the homework that each of its functions belongs to
    parts.py             its tables and layers by the homework's names
    evaluation.py        the ranked users, the evaluated epochs, and the scores of all items by one matrix product
    rehearsal.py         each fast way compared with the plain way before a run
    comparing.py         the first difference between two ways of taking a step
    adam.py              Adam in one vector of all parameters, for all of them or row by row
    fused.py             the plain step, three times faster; as a CUDA graph
    fused_gradients.py   its gradients, written out
    tuned.py             the step with ingredients beyond the homework
    tuned_losses.py      its ranking losses
    tuned_softmax.py     the one over many negatives, with the derivative
    tuned_batch.py       its scores: by ``forward``, or by the network's tables
    tuned_blocks.py      its loss of ratings, a block of a large batch at a time
    rows.py              rows of users and items, copied into a network of other sizes; warm starts
    rated_items.py       the items that each user rated and the users of each item, for these ingredients
    divided.py           the users of a run, divided among several processes
    user_rows.py         the tensors of all users, gathered from the processes and handed out to them
    shared_memory.py     memory that the processes of a machine share, to add up tensors
    group.py             the processes of a run, usually one
    distributed.py       those that torchrun started: their messages, their agreement, the end of one

``train.py`` takes these steps, epoch after epoch. A student's folder has the plain step alone, without the files whose
names begin with fused or tuned.
"""
