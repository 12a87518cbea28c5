"""The functions of models.py that students fill in, and the exercise of each."""

EXERCISES = {
    "init_shared_user_and_item_embeddings": "A1",
    "init_separate_user_and_item_embeddings": "A1",
    "init_item_bias": "A1",
    "init_mlp_layers": "A2",
    "forward_with_embedding_sharing": "B",
    "forward_without_embedding_sharing": "B",
}
