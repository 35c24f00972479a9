"""What the serverless example deploys: two endpoints, one of which calls the other."""
