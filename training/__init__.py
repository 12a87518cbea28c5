"""How one step of training is taken.

    steps.py         the losses, and the step as the homework defines it; start reading here
    network.py       the network of models.py, anybody's: made and checked
    exercises.py     which of its functions belongs to which exercise of the homework
    parts.py         its tables and layers by the homework's names, where something needs more than forward
    trainer.py       a network in training: one epoch of steps, and the state that it goes on from
    sampling.py      the order of the training examples, and their negative items
    flags.py         the flags of an experiment
    preparation.py   what an experiment starts from: the sides of its ratings, its network
    recipe.py        what may be added to the homework's way of training
    tuned_step.py    the step with these ingredients
    watched.py       what each user rated, for some of these ingredients
    settings.py      the weights of the losses, the batch size, the learning rate
    rehearsal.py     each fast way compared with the plain one, before a run
    comparing.py     the first difference between two ways of taking a step
    adam.py          Adam's state, and the one vector of parameters that it trains
    fused.py         the plain step, three times faster, its gradients written out
    rowwise.py       row-wise Adam, whose step costs the same however many users there are
    cuda_graph.py    the fused step as a CUDA graph
    step_factory.py  which of them is used, and which Adam
    parallel.py      the processes of a run, most often one: what they share out, exchange and agree on
    torchrun.py      several of them: how they meet, and what becomes of them when one fails
    shared_steps.py  the steps that several processes take together
    evaluation.py    how all items are scored, which users are ranked, and after which epochs
    devices.py       the device, the number of threads, and what makes runs repeat
    seeds.py         one seed for everything that is random

``train.py`` takes these steps, epoch after epoch. A student's folder has the plain step alone: no step_factory.py, and
none of the files with other steps.
"""
